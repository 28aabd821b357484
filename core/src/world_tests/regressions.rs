//! What the properties found, each in its smallest form.
