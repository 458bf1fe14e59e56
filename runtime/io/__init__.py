"""Files in and out: pictures, video, drawings, atomic writes."""
