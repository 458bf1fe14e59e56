"""The dense 3D face: description of a face, topology, head pose, mesh files."""
