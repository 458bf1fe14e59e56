"""The web server of a camera: a page, a stream of faces, pictures, health and metrics."""
