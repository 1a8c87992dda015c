//! Guest configuration files in xl's grammar.
