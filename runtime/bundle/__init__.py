"""Device bundles: manifest, digests, signatures, bill of materials and model card."""
