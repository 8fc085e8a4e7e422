"""`python -m vlmcourse.backbone.pretrain`: the processes that `vlmcourse pretrain` starts."""

from vlmcourse.backbone.pretrain import main

main()
