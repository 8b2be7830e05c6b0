"""The methods: which stages each consists of, in order, and which stage's net is judged."""

METHODS: dict[str, tuple[str, ...]] = {
    'fn2en': ('face_net', 'finetune', 'stage1', 'stage2'),
    'finetune': ('face_net', 'finetune'),
    'scratch': ('scratch',),
}
