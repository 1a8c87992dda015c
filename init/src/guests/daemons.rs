//! The Xen daemons that guests need: started before systemd, found running by Debian's scripts.
