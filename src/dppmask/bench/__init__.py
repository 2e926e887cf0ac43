"""What masks and training steps cost: measured here, in one run, beside published and installed peers.

``cases`` says what is timed and against whom; ``masks``, ``step``, ``scaling`` and ``memory`` measure;
``arithmetic`` says what it must cost at least; ``tables``, ``table9`` and ``plots`` show it;
``run`` is all of it.
"""
