"""The C99 headers of pre- and postprocessing, and the generator that fills in a spec."""
