FROM alpine
ADD --keep-git-dir=true --checksum=24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d --link --chown=u:g --chmod=644 --unpack=false --exclude=x https://example.com/a.git#v1:sub /dst
