//! Whether the guests fit into the memory that Xen has, before any is started.
