#!/bin/sh
# Makes the certificates of the tests, for a hundred years. They protect nothing.
set -eu
cd "$(dirname "$0")"

ca() { # ca NAME
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=$1" \
        -addext "basicConstraints=critical,CA:TRUE" -keyout "$1.key" -out "$1.pem" 2>/dev/null
}

leaf() { # leaf NAME CA SUBJECT-ALTERNATIVE-NAMES [NOT-BEFORE NOT-AFTER]
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$1.key" -out "$1.csr" 2>/dev/null
    printf 'basicConstraints=CA:FALSE\nsubjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3" >"$1.ext"
    mkdir -p db && : >db/index.txt && echo 01 >db/serial
    printf '[ca]\ndefault_ca=d\n[d]\ndatabase=db/index.txt\nserial=db/serial\nnew_certs_dir=db\ndefault_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n' >db/config
    openssl ca -batch -config db/config -cert "$2.pem" -keyfile "$2.key" -in "$1.csr" -out "$1.pem" -notext \
        -startdate "${4:-20260101000000Z}" -enddate "${5:-21251231000000Z}" -extfile "$1.ext" 2>/dev/null
    rm -rf db "$1.csr" "$1.ext"
}

ca ca
ca other-ca
leaf server ca DNS:echo,DNS:echo.example,URI:spiffe://example.org/echo
leaf other-server other-ca DNS:echo
leaf expired ca DNS:echo 20200101000000Z 20201231000000Z
leaf future ca DNS:echo 21000101000000Z 21251231000000Z
leaf client ca DNS:client.example
leaf other-client other-ca DNS:client.example
rm -f ca.key other-ca.key
