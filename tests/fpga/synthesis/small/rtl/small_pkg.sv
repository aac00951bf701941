// SPDX-License-Identifier: Apache-2.0

package small_pkg;
  localparam int unsigned LANES = 3;
endpackage
