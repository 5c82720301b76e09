"""Parts, label fractions, points and folds, and the manifest that records them."""
