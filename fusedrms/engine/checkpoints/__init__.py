"""What a checkpoint holds of an optimizer, on its way out and in. Imports what the engine stores and checks, never the optimizer."""
