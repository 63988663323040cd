//! Decapsulation on a backend: what it lets through, and that it outlives its process.
