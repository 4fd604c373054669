"""What lies between bits or latents and antennas."""
