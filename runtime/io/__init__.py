"""Files in and out: foreign files, pictures, frames, text, caches, atomic writes."""
