"""How likely it is: volatility, first passage, calibrated probabilities, the label."""
