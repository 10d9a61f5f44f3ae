"""What is left of the forecast on a recorded past, where there is neither book nor print."""
