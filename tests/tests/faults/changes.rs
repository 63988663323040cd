//! Changes of the services: what is admitted, saved, and read again.
