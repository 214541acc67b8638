//! Load a PyTorch program and run it over delegates, with the CPU as the floor.
