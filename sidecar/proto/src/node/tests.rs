//! What one node does, input by input.
