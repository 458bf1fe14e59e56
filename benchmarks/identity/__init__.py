"""The effect of detections on face recognition: identity under drift, and verification on labelled pairs."""
