//! The simulator of the core, still empty: worlds of the core alone belong here, anything that needs the runtime never does.
