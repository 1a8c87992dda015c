//! A client of xenstored.
