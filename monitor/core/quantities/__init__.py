"""Further quantities that the literature names, for whoever watches them."""
