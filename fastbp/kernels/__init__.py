"""Everything that is compiled: the arithmetic of layers, losses and updates."""
