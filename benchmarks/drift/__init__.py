"""How far each artifact of a bundle is from FP32: tensors, detections, layers and meshes."""
