// SPDX-License-Identifier: Apache-2.0
//
// The compute core between behavioural memories, which are read from and written to hex files in the working folder.
// What a memory shows in a cycle that did not follow a read is wrong on purpose, and so is all that comes from the
// router while the progress of CP is below `routed_i`.

`default_nettype none

module compute_core_bench
  import accel_pkg::*;
(
  input  logic              clk_i,
  input  logic              rst_i,
  input  logic              load_i,       // rising: read the files
  input  logic              dump_i,       // rising: write the banks
  input  logic              start_i,
  input  logic [15:0]       descs_i,      // how many
  input  logic [7:0]        gap_i,        // 0: no pause between descriptors
  input  progress_t         progress_i,   // of the other units
  input  logic [31:0]       routed_i,
  output logic              done_o,
  output logic [31:0]       progress_o,
  output logic [31:0]       steps_o,
  output logic [31:0]       span_o,       // cycles from the first step to the last one
  output logic [6:0][31:0]  stalls_o,
  output logic [31:0]       idles_o,
  output logic [2:0][31:0]  actives_o
);

  localparam int unsigned WordBits = 8 * WORD_BYTES;
  localparam int unsigned RouteBits = ROWS * (TOTAL_BITS + SLOTS_PER_TOKEN * GATE_BITS);
  localparam int unsigned RowTiles = MAX_KEYS / ROWS;

  logic [WordBits-1:0]      a_mem [A_WORDS];
  logic [WordBits-1:0]      x_mem [X_WORDS];
  logic [8*ENTRY_BYTES-1:0] w_mem [WEIGHT_ENTRIES];
  logic [BEAT_BITS-1:0]     p_mem [4*PARAM_GROUPS];
  logic [15:0]              t_mem [2*256*TABLE_SLOTS];
  desc_t                    d_mem [4096];
  logic [LENGTH_BITS-1:0]   l_mem [QUEUES];
  logic [RouteBits-1:0]     g_mem [RowTiles];   // totals, gates

  always @(posedge load_i) begin
    $readmemh("a.hex", a_mem);
    $readmemh("x.hex", x_mem);
    $readmemh("w.hex", w_mem);
    $readmemh("p.hex", p_mem);
    $readmemh("t.hex", t_mem);
    $readmemh("d.hex", d_mem);
    $readmemh("l.hex", l_mem);
    $readmemh("g.hex", g_mem);
  end
  always @(posedge dump_i) begin
    $writememh("a_out.hex", a_mem);
    $writememh("x_out.hex", x_mem);
  end

  typedef enum logic [1:0] {Idle, Fill, Run} state_e;
  state_e      state_q;
  logic [31:0] count_q;
  logic [15:0] desc_q;
  logic [7:0]  gap_q, random_q;

  logic                     desc_valid, desc_ready, busy, step, idle;
  logic [2:0]               active;
  logic                     gate_en;
  logic [15:0]              gate_tile;
  logic [RouteBits-1:0]     gates;
  lengths_t                 lengths;
  logic [6:0]               stall;
  progress_t                progress;
  logic                     a_rd, a_wr, x_rd, x_wr, w_rd;
  logic [15:0]              a_rd_addr, a_wr_addr, x_rd_addr, x_wr_addr, w_rd_entry;
  logic [WordBits-1:0]      a_rd_data, a_wr_data, x_rd_data, x_wr_data;
  logic [WORD_BYTES-1:0]    a_be, x_be;
  logic [8*ENTRY_BYTES-1:0] w_rd_data;
  logic                     p_we, t_we;

  assign p_we       = state_q == Fill && count_q < 4 * PARAM_GROUPS;
  assign t_we       = state_q == Fill && count_q < 512 * TABLE_SLOTS;
  assign desc_valid = state_q == Run && desc_q < descs_i && gap_q == '0;
  assign done_o     = state_q == Run && desc_q == descs_i && !busy;
  for (genvar e = 0; e < QUEUES; e++) begin : gen_length
    assign lengths[e] = progress_i[UNIT_CP] < routed_i ? ~l_mem[e] : l_mem[e];
  end
  always_comb begin
    progress          = progress_i;
    progress[UNIT_MM] = progress_o;
  end

  always_ff @(posedge clk_i) begin
    count_q <= count_q + 1;
    random_q <= {random_q[6:0], random_q[7] ^ random_q[5] ^ random_q[4] ^ random_q[3]};
    if (gap_q != '0) gap_q <= gap_q - 8'd1;
    case (state_q)
      Idle: if (start_i) begin
        state_q <= Fill;
        count_q <= '0;
      end
      Fill: if (count_q >= 4 * PARAM_GROUPS && count_q >= 512 * TABLE_SLOTS) state_q <= Run;
      default: begin
        if (desc_valid && desc_ready) begin
          desc_q <= desc_q + 16'd1;
          if (gap_i != '0) gap_q <= random_q % gap_i;
        end
        if (!start_i) begin
          state_q <= Idle;
          desc_q  <= '0;
        end
      end
    endcase
    if (step) begin
      steps_o <= steps_o + 1;
      span_o  <= count_q;
      if (steps_o == 0) begin
        count_q <= 1;
        span_o  <= 0;
      end
    end
    for (int i = 0; i < 7; i++) if (stall[i]) stalls_o[i] <= stalls_o[i] + 1;
    for (int i = 0; i < 3; i++) if (active[i]) actives_o[i] <= actives_o[i] + 1;
    if (state_q == Run && idle) idles_o <= idles_o + 1;
    if (state_q == Idle) begin
      steps_o   <= '0;
      span_o    <= '0;
      stalls_o  <= '0;
      idles_o   <= '0;
      actives_o <= '0;
    end
    if (rst_i) begin
      state_q  <= Idle;
      desc_q   <= '0;
      gap_q    <= '0;
      random_q <= 8'd1;
    end
  end

  always_ff @(posedge clk_i) begin
    a_rd_data <= a_rd ? a_mem[a_rd_addr[$clog2(A_WORDS)-1:0]] : ~a_rd_data;
    x_rd_data <= x_rd ? x_mem[x_rd_addr[$clog2(X_WORDS)-1:0]] : ~x_rd_data;
    w_rd_data <= w_rd ? w_mem[w_rd_entry[$clog2(WEIGHT_ENTRIES)-1:0]] : ~w_rd_data;
    gates     <= gate_en && progress_i[UNIT_CP] >= routed_i ? g_mem[gate_tile[$clog2(RowTiles)-1:0]] : ~gates;
    for (int i = 0; i < WORD_BYTES; i++) begin
      if (a_wr && a_be[i]) a_mem[a_wr_addr[$clog2(A_WORDS)-1:0]][8*i +: 8] <= a_wr_data[8*i +: 8];
      if (x_wr && x_be[i]) x_mem[x_wr_addr[$clog2(X_WORDS)-1:0]][8*i +: 8] <= x_wr_data[8*i +: 8];
    end
    if (!rst_i) begin
      assert (!(a_rd && 32'(a_rd_addr) >= A_WORDS) && !(a_wr && 32'(a_wr_addr) >= A_WORDS)
              && !(x_rd && 32'(x_rd_addr) >= X_WORDS) && !(x_wr && 32'(x_wr_addr) >= X_WORDS)
              && !(w_rd && 32'(w_rd_entry) >= WEIGHT_ENTRIES) && !(gate_en && 32'(gate_tile) >= RowTiles))
        else $fatal(1, "an address is beyond its memory");
    end
  end

  compute_core dut (
    .clk_i        (clk_i),
    .rst_i        (rst_i),
    .clear_i      (state_q == Idle && start_i),
    .desc_valid_i (desc_valid),
    .desc_ready_o (desc_ready),
    .desc_i       (desc_valid ? d_mem[desc_q[11:0]] : '1),
    .progress_i   (progress),
    .progress_o   (progress_o),
    .busy_o       (busy),
    .step_o       (step),
    .stall_o      (stall),
    .idle_o       (idle),
    .active_o     (active),
    .lengths_i    (lengths),
    .gate_en_o    (gate_en),
    .gate_tile_o  (gate_tile),
    .gate_i       (gates[ROWS*SLOTS_PER_TOKEN*GATE_BITS-1:0]),
    .total_i      (gates[RouteBits-1:ROWS*SLOTS_PER_TOKEN*GATE_BITS]),
    .a_rd_req_o   (a_rd),
    .a_rd_addr_o  (a_rd_addr),
    .a_rd_data_i  (a_rd_data),
    .a_wr_req_o   (a_wr),
    .a_wr_addr_o  (a_wr_addr),
    .a_wr_data_o  (a_wr_data),
    .a_wr_be_o    (a_be),
    .x_rd_req_o   (x_rd),
    .x_rd_addr_o  (x_rd_addr),
    .x_rd_data_i  (x_rd_data),
    .x_wr_req_o   (x_wr),
    .x_wr_addr_o  (x_wr_addr),
    .x_wr_data_o  (x_wr_data),
    .x_wr_be_o    (x_be),
    .w_rd_en_o    (w_rd),
    .w_rd_entry_o (w_rd_entry),
    .w_rd_data_i  (w_rd_data),
    .p_we_i       (p_we),
    .p_group_i    (count_q[17:2]),
    .p_beat_i     (count_q[1:0]),
    .p_data_i     (p_mem[count_q[$clog2(4*PARAM_GROUPS)-1:0]]),
    .t_we_i       (t_we),
    .t_table_i    ({1'b0, count_q[8+$clog2(TABLE_SLOTS)]}),
    .t_slot_i     (8'(count_q[8+:$clog2(TABLE_SLOTS)])),
    .t_index_i    (count_q[7:0]),
    .t_data_i     (t_mem[count_q[$clog2(512*TABLE_SLOTS)-1:0]])
  );

endmodule

`default_nettype wire
