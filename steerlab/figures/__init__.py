"""Figures: each is drawn from one tidy table that stands beside it, in the one style of `style`. No torch here."""
