"""The verbs that measure bundles: speed, cost, drift, accuracy, and the choice among them."""
