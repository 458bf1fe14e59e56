"""What a frame costs on a Raspberry Pi's core: instructions, cycles and cache misses, counted on any machine."""
