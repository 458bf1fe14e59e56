"""The images that INT8 is calibrated on."""
