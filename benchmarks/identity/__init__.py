"""What detections are worth to face recognition: identity under drift, and verification on labelled pairs."""
