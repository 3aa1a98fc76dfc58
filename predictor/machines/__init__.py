"""One predictor of slowdowns over types of machines."""
