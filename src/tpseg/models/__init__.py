"""Networks: what all share, TP-Seg, and the systems it is compared with."""
