# Waits for the end of the test process, then clears its folder ($1) away.
cat >/dev/null

rounds=0
while [ $rounds -lt 200 ]; do
    found=
    for link in /proc/[0-9]*/cwd; do
        case "$(readlink "$link")" in
            "$1" | "$1"/*)
                process="${link#/proc/}"
                kill -KILL "${process%/cwd}"
                found=1
                ;;
        esac
    done
    [ -n "$found" ] || break
    rounds=$((rounds + 1))
    sleep 0.05
done

# A killed PostgreSQL leaves a segment of shared memory, named in this file.
for file in "$1"/*/data/postmaster.pid; do
    [ -f "$file" ] && ipcrm -m "$(awk 'NR == 7 { print $2 }' "$file")"
done
rm -rf "$1"
