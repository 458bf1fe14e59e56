"""Average precision on annotated pictures: boxes files and the WIDER FACE protocol."""
