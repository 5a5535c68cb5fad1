"""What `explain` is made of: which rule matched, rates and decays at the peak, bytes of state, and the table."""
