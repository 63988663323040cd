//! BGP sessions, and what is shown of announcements.
