"""Images in: data sets, splits, preprocessing and calibration readers."""
