// Package space says how much room there is on a disk.
package space

import "syscall"

// Free is how many bytes of a file system others than its administrator may write
// to; false: nobody knows.
func Free(path string) (int64, bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, false
	}
	return int64(st.Bavail) * st.Bsize, true //nolint:gosec // a file system is smaller
}
