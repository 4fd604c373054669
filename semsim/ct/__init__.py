"""Computed tomography: drawn jaws, metal in them, and a scanner that makes the artefacts.

    phantom ─┬─► polychromatic scan with metal ─► sinogram ─► FBP ─► corrupted slice
             └─► the same scan without metal ───────────────► FBP ─► clean slice

Slices are attenuation in cm⁻¹. What is found and what is inferred stands in each module.
"""
