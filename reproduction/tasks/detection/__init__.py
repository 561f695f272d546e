"""Object detection (TPAMI'20 section 6): the pyramid inside torchvision's Faster R-CNN."""
