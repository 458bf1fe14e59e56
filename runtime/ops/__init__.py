"""Pre- and postprocessing: letterbox, decoding, non-maximum suppression, alignment."""
