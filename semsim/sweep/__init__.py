"""Running a scenario: checked first, trained once, all its points, resumable, into one folder."""
