"""Cream of the Crop: search, retrain and test image networks."""

import warnings

# Paddle says so on every import; nothing here compiles often enough to want ccache.
warnings.filterwarnings("ignore", message="No ccache found")
