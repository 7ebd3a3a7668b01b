"""Cream of the Crop: search, retrain and test image networks."""
