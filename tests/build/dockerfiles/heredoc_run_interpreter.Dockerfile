FROM python
RUN <<EOF python3
import sys
print(sys.version)
EOF
