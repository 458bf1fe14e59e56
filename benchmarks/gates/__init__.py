"""Gates: rules, as data, that a result must hold."""
