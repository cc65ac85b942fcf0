"""TP-Seg: the network, its neck, its prototype-guided decoder and its prototypes."""
